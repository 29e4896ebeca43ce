#include <stdio.h>

#include "app.h"

int main(int argc, char **argv)
{
    struct options o;
    if (options_parse(&o, argc, argv) != 0) {
        fprintf(stderr, "usage: app [--quiet]\n");
        return 2;
    }
    return report(&o);
}
