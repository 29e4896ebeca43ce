#include <stdio.h>
#include "options.h"

int main(int count, const char **words)
{
    printf("%s %d\n", SITE_NAME, read_options(count, words));
    return 0;
}
