#pragma once

#include <palette/colour.hpp>

namespace palette {

constexpr int brightness(Colour c)
{
    return (c.red * 3 + c.green * 6 + c.blue) / 10;
}

} // namespace palette
