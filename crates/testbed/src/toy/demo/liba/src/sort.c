#include "internal.h"
#include "liba/export.h"
#include "liba/vector.h"

EXPORT void vector_sort(struct vector *v)
{
    for (int i = 1; i < v->count; i++)
        for (int j = i; j > 0 && v->items[j - 1] > v->items[j]; j--)
            swap(&v->items[j - 1], &v->items[j]);
}
