#include <dep/bounds.h>
#include "b.h"

int b_bound(int x)
{
    return x > LIMIT ? LIMIT : x;
}
