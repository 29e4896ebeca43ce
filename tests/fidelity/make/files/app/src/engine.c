#include <dep/convert.h>
#include "engine.h"
#include BACKEND
#if USE_FAST
#include "fast.h"
#else
#include "slow.h"
#endif

int engine_run(int x)
{
    return dep_convert(x) * BACKEND_FACTOR + STRIDE;
}
