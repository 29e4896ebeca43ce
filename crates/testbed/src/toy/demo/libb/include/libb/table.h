#ifndef LIBB_TABLE_H
#define LIBB_TABLE_H

#include "histogram.h"

int table_print(const struct histogram *h);

#endif
