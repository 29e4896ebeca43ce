#include <shape/circle.hpp>

double shape::Circle::area() const
{
    return radius * radius * 3.14159;
}
