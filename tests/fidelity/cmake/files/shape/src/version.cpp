#include "version.hpp"

#include <shape/shape.hpp>

std::string shape::version()
{
    return SHAPE_VERSION;
}
