#include <iostream>

#include <palette/mix.hpp>
#include <shape/circle.hpp>
#include <shape/square.hpp>

#include "canvas.hpp"

int main()
{
    Canvas canvas;
    const shape::Circle circle(1);
    const shape::Square square(2);
    canvas.add(circle);
    canvas.add(square);
    std::cout << shape::version() << ' ' << canvas.covered() << ' ' << palette::brightness(circle.colour) << '\n';
    return 0;
}
