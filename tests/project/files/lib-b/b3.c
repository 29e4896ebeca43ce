#include <a.h>
#include "b.h"

MANY(b3_)

int b3(void) {
    return a3() + ANSWER;
}
