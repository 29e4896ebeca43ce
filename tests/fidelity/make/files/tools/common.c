#include <dep/units.h>
#include "common.h"

int common(int x)
{
    return x * UNIT_FEET;
}
