#include <a.h>
#include <dep/units.h>
#include "b.h"

int b_combine(int x)
{
    return a_add(a_scale(x), UNIT_METRES);
}
