#include <liba/random.h>

#include "app.h"

unsigned next_sample(unsigned *state, unsigned limit)
{
    *state = random_next(*state);
    return (*state >> 16) % limit;
}
