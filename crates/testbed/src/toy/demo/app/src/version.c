#include "app.h"

const char *version(void)
{
    return "1.0";
}
