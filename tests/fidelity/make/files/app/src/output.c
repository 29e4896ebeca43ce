#include <stdio.h>
#include "output.h"
#include "format.h"

void output(int value)
{
    printf(FORMAT, APP_NAME, value);
}
