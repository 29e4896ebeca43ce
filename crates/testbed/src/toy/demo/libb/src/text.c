#include "libb/export.h"
#include "libb/text.h"

EXPORT int text_length(const char *text)
{
    int length = 0;
    while (text[length])
        length++;
    return length;
}

EXPORT int text_equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}
