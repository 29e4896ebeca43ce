#ifndef LIBA_VECTOR_H
#define LIBA_VECTOR_H

#include "config.h"

struct vector {
    int items[LIBA_CAPACITY];
    int count;
};

void vector_clear(struct vector *v);
int vector_push(struct vector *v, int item);
void vector_sort(struct vector *v);

#endif
