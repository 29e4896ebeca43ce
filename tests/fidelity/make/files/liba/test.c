#include "a.h"

int main(void)
{
    return a_add(1, 2) == 3 ? 0 : 1;
}
