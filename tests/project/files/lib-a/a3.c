#include "a.h"

MANY(a3_)

int a3(void) {
    return 3 * ANSWER;
}
