#include "liba/export.h"
#include "liba/vector.h"

EXPORT void vector_clear(struct vector *v)
{
    v->count = 0;
}

EXPORT int vector_push(struct vector *v, int item)
{
    if (v->count == LIBA_CAPACITY)
        return -1;
    v->items[v->count++] = item;
    return 0;
}
