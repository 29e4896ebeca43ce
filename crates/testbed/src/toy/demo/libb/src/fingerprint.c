#include <liba/checksum.h>

#include "libb/export.h"
#include "libb/text.h"

EXPORT unsigned text_fingerprint(const char *text)
{
    return checksum(text, text_length(text));
}
