#include <popt.h>
#include "options.h"

int read_options(int count, const char **words)
{
    int number = 0;
    struct poptOption options[] = {
        {"number", 'n', POPT_ARG_INT, &number, 0, "a number", "N"},
        POPT_AUTOHELP POPT_TABLEEND,
    };
    poptContext context = poptGetContext(SITE_NAME, count, words, options, 0);
    while (poptGetNextOpt(context) > 0) {
    }
    poptFreeContext(context);
    return number > SITE_LIMIT ? SITE_LIMIT : number;
}
