#include "support.hpp"

#include <cmath>

bool near(double a, double b)
{
    return std::fabs(a - b) < 0.001;
}
