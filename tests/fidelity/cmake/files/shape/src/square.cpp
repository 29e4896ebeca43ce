#include <shape/square.hpp>

#include <palette/mix.hpp>

double shape::Square::area() const
{
    return side * side + palette::brightness(colour) * 0;
}
