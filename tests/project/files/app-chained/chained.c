#include <stdio.h>

#include <dep.h>
#include <slow.h>

#include "part.h"

int main(void)
{
    printf("%d %d %d\n", ANSWER, PATIENCE, part());
    return 0;
}
