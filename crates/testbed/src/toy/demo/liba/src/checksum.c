#include "liba/checksum.h"
#include "liba/export.h"

#define CHECKSUM_SEED 5381u

EXPORT unsigned checksum(const char *data, int size)
{
    unsigned sum = CHECKSUM_SEED;
    for (int i = 0; i < size; i++)
        sum = sum * 33u + (unsigned char)data[i];
    return sum;
}
