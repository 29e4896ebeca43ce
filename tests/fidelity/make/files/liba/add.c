#include "a.h"
#include "a_internal.h"

/* Adds. */
int a_add(int x, int y)
{
    return x + y + A_STEP - 2;
}
