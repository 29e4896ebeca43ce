#include "common.h"

int twice(int number)
{
    return number + number;
}
