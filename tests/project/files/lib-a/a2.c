#include "a.h"

MANY(a2_)

int a2(void) {
    return 2 * ANSWER;
}
