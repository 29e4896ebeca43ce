#include <libb/text.h>

#include "app.h"

int options_parse(struct options *o, int argc, char **argv)
{
    o->seed = text_fingerprint("seed");
    o->quiet = 0;
    for (int i = 1; i < argc; i++) {
        if (!text_equal(argv[i], "--quiet"))
            return -1;
        o->quiet = 1;
    }
    return 0;
}
