#include "libb/export.h"
#include "libb/histogram.h"

EXPORT void histogram_fill(struct histogram *h, int limit)
{
    for (int bin = 0; bin < HISTOGRAM_BINS; bin++)
        h->bins[bin] = 0;
    for (int i = 0; i < h->samples.count && i < LIBA_CAPACITY; i++)
        h->bins[h->samples.items[i] * HISTOGRAM_BINS / limit]++;
}
