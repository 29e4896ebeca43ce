#include <a.h>
#include <dep/limits.h>
#include "common.h"

int main(void)
{
    return a_lookup(common(0)) == LIMIT ? 1 : 0;
}
