#include <dep/legacy.h>
#include "report.h"

int report(int value)
{
    return value & LEGACY_MASK;
}
