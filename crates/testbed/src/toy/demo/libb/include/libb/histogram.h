#ifndef LIBB_HISTOGRAM_H
#define LIBB_HISTOGRAM_H

#include <liba/vector.h>

#define HISTOGRAM_BINS 4

struct histogram {
    struct vector samples;
    int bins[HISTOGRAM_BINS];
};

void histogram_fill(struct histogram *h, int limit);

#endif
