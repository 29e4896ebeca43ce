#include <string.h>
#include "a.h"

int a_length(const char *text)
{
    return (int)strlen(text);
}
