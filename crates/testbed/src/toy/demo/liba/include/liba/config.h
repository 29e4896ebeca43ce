#ifndef LIBA_CONFIG_H
#define LIBA_CONFIG_H

#define LIBA_CAPACITY 16

#endif
