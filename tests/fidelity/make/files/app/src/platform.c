#include <platform.h>

int platform_pages(int bytes)
{
    return bytes / PAGE_BYTES;
}
