#include "a.h"

MANY(a1_)

int a1(void) {
    return 1 * ANSWER;
}
