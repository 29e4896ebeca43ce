#include "liba/export.h"
#include "liba/random.h"

EXPORT unsigned random_next(unsigned state)
{
    return state * 1664525u + 1013904223u;
}
