#include "b.h"
#include "version.h"

const char *b_version(void)
{
    return B_VERSION;
}
