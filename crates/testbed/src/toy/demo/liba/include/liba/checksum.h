#ifndef LIBA_CHECKSUM_H
#define LIBA_CHECKSUM_H

unsigned checksum(const char *data, int size);

#endif
