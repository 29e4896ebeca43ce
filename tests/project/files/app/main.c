#include <stdio.h>

#include <dep.h>

#include "common.h"

int main(void)
{
    printf("the answer is %d, twice is %d\n", ANSWER, twice(ANSWER));
    return 0;
}
