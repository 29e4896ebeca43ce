#include <a.h>
#include "b.h"

MANY(b1_)

int b1(void) {
    return a1() + ANSWER;
}
