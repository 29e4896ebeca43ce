#include <a.h>
#include <b.h>

MANY(right_)

int right(void) {
    return b1() + b2() + b3();
}
