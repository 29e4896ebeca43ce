#include <dep/convert.h>
#include "a.h"

int a_scale(int x)
{
    return dep_convert(x);
}
