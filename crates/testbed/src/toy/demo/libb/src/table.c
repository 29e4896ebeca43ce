#include <stdio.h>

#include "libb/export.h"
#include "libb/table.h"

EXPORT int table_print(const struct histogram *h)
{
    printf("%d of %d samples\n", h->samples.count, LIBA_CAPACITY);
    for (int bin = 0; bin < HISTOGRAM_BINS; bin++)
        printf("bin %d: %d\n", bin, h->bins[bin]);
    return h->samples.count;
}
