#ifndef DEP_CONVERT_H
#define DEP_CONVERT_H
#include <dep/config.h>
static inline int dep_convert(int value)
{
    return value * DEP_SCALE + DEP_OFFSET;
}
#endif
