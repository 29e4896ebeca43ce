#include <b.h>
#include "engine.h"
#include "output.h"
#include "report.h"

int platform_pages(int bytes);

int main(void)
{
    output(b_combine(engine_run(platform_pages(8192))));
    return report(0);
}
