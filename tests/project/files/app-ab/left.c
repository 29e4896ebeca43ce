#include <a.h>

MANY(left_)

int left(void) {
    return a1() + a2() + a3();
}
