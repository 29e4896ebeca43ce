#ifndef LIBA_RANDOM_H
#define LIBA_RANDOM_H

unsigned random_next(unsigned state);

#endif
