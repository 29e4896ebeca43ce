#include <shape/circle.hpp>
#include <shape/square.hpp>

#include "support.hpp"

int main()
{
    return near(shape::Square(2).area(), 4) && shape::Circle(1).area() > 3 ? 0 : 1;
}
