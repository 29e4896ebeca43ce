#include <a.h>
#include "b.h"

MANY(b2_)

int b2(void) {
    return a2() + ANSWER;
}
