#include <stdio.h>

#include <liba/vector.h>
#include <libb/table.h>

#include "app.h"

int report(const struct options *o)
{
    struct histogram h;
    unsigned state = o->seed;
    vector_clear(&h.samples);
    while (vector_push(&h.samples, (int)next_sample(&state, 100)) == 0)
        ;
    vector_sort(&h.samples);
    histogram_fill(&h, 100);
    if (!o->quiet) {
        printf("app %s\n", version());
        table_print(&h);
    }
    return 0;
}
